// Prints the effective user and group.
#include <cstdio>

#include <unistd.h>

int main() {
    std::printf("%u %u\n", ::geteuid(), ::getegid());
}
