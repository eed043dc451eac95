#!/usr/bin/env bash
# Includes go down only: each header belongs to one layer of ARCHITECTURE.md and includes its own layer or lower ones.
# A header that is in no layer is an error: give it one here and there.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A layer
put() {
    local number=$1 name
    shift
    for name in "$@"; do layer[$name]=$number; done
}
put 0 error fd address capability seccomp device resource_limit limits usage # the basis: knows nothing
put 0 detail/sys detail/owner detail/state_record detail/descriptor                                # of containers
put 0 detail/kernel_paths detail/cpu_counters detail/owned detail/text
put 1 cancellation # handles of one kernel thing each
put 1 process namespace pty loop detail/path detail/fscontext detail/superblock
put 2 start_hook
put 2 lifecycle spec detail/asking                                              # values: what a container is to be
put 2 console detail/consoles                            # and of its terminals
put 3 mount cgroup bridge                           # resources that are made from values
put 3 detail/root_tree
put 3 detail/usage_files
put 1 detail/freezer detail/cgroup_notice
put 2 cgroup_watch
put 3 detail/cgroup_hierarchy detail/cgroup_tree detail/network detail/device_tree detail/device_node detail/id_range
put 4 check detail/unprivileged
put 4 probe detail/plan detail/plan_builder detail/channel # what runs after clone, as bytes
put 5 container sweep detail/running detail/launch detail/prepare detail/start detail/start_error
put 5 detail/prepare_inside detail/plan_payload detail/plan_protect detail/user_database
put 5 detail/plan_mounts detail/stage_program detail/visit exec detail/hotplug detail/container_record
put 4 detail/device_control detail/host_devices # which devices
put 4 detail/filter  # the program of a system call filter
put 4 security_report # of a running process, as values
put 4 detail/equipment # what a running container was given
put 4 detail/archive # values as bytes between a program and its helper
put 6 controller event helper detail/reattached detail/helper_wire detail/turns
put 7 caisson # the umbrella
put 8 xml
# Resources do not know each other.
apart='mount cgroup bridge'

status=0
complain() {
    printf '%s\n' "$*"
    status=1
}
includes() { grep -oP '^\s*#\s*include\s*[<"]caisson/\K[^>"]+(?=\.hpp)' "$1" || true; }

while read -r file; do
    name=${file#include/caisson/} name=${name%.hpp}
    own=${layer[$name]-}
    if [[ -z $own ]]; then
        complain "$file: in no layer of tests/layers.sh"
        continue
    fi
    while read -r other; do
        [[ -n $other ]] || continue
        theirs=${layer[$other]-}
        if [[ -z $theirs ]]; then
            complain "$file: includes '$other', which is in no layer"
        elif ((theirs > own)); then
            complain "$file: layer $own includes '$other' of layer $theirs"
        fi
        if [[ " $apart " == *" $name "* && " $apart " == *" $other "* ]]; then
            complain "$file: one resource includes another, '$other'"
        fi
    done < <(includes "$file")
done < <(find include/caisson -name '*.hpp' | sort)

# What is slow to compile, or a dependency that users need not have, stays in its own few translation units.
only() {
    local what=$1 where=$2 file
    while read -r file; do
        if [[ ! $file =~ $where ]]; then complain "$file: includes $what, which belongs in $where"; fi
    done < <(grep -rlP "^\s*#\s*include\s*[<\"]$what" include src || true)
}
only 'tinyxml2' '^src/xml'
only 'range/v3' '^src/'
only 'range/v3/all.hpp' '^$'
only 'libmnl' '^src/net'
only 'caisson/xml.hpp' '^src/(xml|helper)'
only '(iostream|filesystem|functional|regex|thread|fstream|sstream)>' '^src/'
above='container|controller|event|exec|copy|helper|sweep|xml|detail/(start|launch|reattached|running|helper_wire)'
only 'chrono>' "^(src/|include/caisson/($above))"
only 'memory>' '^src/'
exit $status
