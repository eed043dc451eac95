// src/start.cpp - the start of a container.
#include <string_view>

#include <caisson/detail/running.hpp>
#include <caisson/detail/start.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

Running start(const ContainerSpec& spec, const StartHook& hook, const Cancellation* cancellation) {
    bool in_hook = false;
    try {
        return Start{spec, cancellation}.run(hook, in_hook);
    } catch (const Error& e) {
        if (in_hook) throw;
        const std::string_view remedy = e.remedy().empty() ? general_remedy(e.code()) : e.remedy();
        throw e.in("container " + quote(spec.name)).with_remedy(remedy);
    }
}

}  // namespace caisson::inline v0::detail
