// The only translation unit with doctest's implementation. Skipped cases are counted in the closing line, with reasons.
#define DOCTEST_CONFIG_IMPLEMENT
#include "support/doctest.hpp"

#include <cstdio>

namespace caisson_test {
int skipped = 0;
void skip(const char* reason) {
    ++skipped;
    std::printf("SKIPPED: %s: %s\n", doctest::getContextOptions()->currentTest->m_name, reason);
    std::fflush(stdout);
}
}  // namespace caisson_test

int main(int argc, char** argv) {
    doctest::Context context{argc, argv};
    const int result = context.run();
    if (caisson_test::skipped > 0) std::printf("%d skipped\n", caisson_test::skipped);
    return result;
}
