// make_thread - makes a thread by the C library, as any program does.
#include <thread>

int main() {
    int made = 0;
    std::thread{[&] { made = 1; }}.join();
    return made == 1 ? 0 : 1;
}
