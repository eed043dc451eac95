#!/usr/bin/env bash
# The built library holds no state of its own and calls nothing that changes the host's process:
# library_symbols.sh LIBRARY...
set -euo pipefail

# fork(2) and friends copy a process with threads; the rest changes or reads what belongs to the whole program.
forbidden='_?v?fork|_Fork|daemon|system|popen|posix_spawnp?|(un)?setenv|putenv|clearenv|(secure_)?getenv'
forbidden+='|signal|sigaction'
forbidden+='|(pthread_)?sigmask|sigprocmask|raise|abort|_?exit|quick_exit|f?chdir|chroot|umask|setlocale|atexit|on_exit'
forbidden+='|openlog|syslog|set(e|re|res)?[ug]id|setgroups|alarm|setitimer|pthread_create|dlopen|printf|puts'
forbidden+='|perror|std::cout'

# The compiler's own; and range-v3 has empty objects in unoptimised builds.
harmless='completed\.0|__TMC_END__|(\.hidden )?__dso_handle|(\.hidden )?DW\.ref\.[^ ]*|ranges::box<.*::value'

status=0
for library in "$@"; do
    if nm -uC "$library" | sed 's/@.*//' | grep -E " U ($forbidden)\$"; then
        echo "$library: calls what is the host program's business"
        status=1
    fi
    # Sections that are written to while the program runs; what is read-only after relocation may stay.
    if objdump -tC "$library" |
        awk '/ O (\.data|\.bss)(\.[^r][^ ]*)?\t/ || (/ \.t(bss|data)\t/ && !/ d +\.t/)' |
        grep -vE " ($harmless)\$"; then
        echo "$library: has variables of its own"
        status=1
    fi
done
exit $status
