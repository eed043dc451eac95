// caisson/caisson.hpp - the whole library but XML, which is caisson/xml.hpp and a library of its own.
#pragma once

// IWYU pragma: begin_exports
#include <caisson/address.hpp>
#include <caisson/bridge.hpp>
#include <caisson/cancellation.hpp>
#include <caisson/capability.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/cgroup_watch.hpp>
#include <caisson/check.hpp>
#include <caisson/console.hpp>
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/device.hpp>
#include <caisson/error.hpp>
#include <caisson/event.hpp>
#include <caisson/exec.hpp>
#include <caisson/fd.hpp>
#include <caisson/helper.hpp>
#include <caisson/lifecycle.hpp>
#include <caisson/limits.hpp>
#include <caisson/loop.hpp>
#include <caisson/mount.hpp>
#include <caisson/namespace.hpp>
#include <caisson/probe.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/resource_limit.hpp>
#include <caisson/seccomp.hpp>
#include <caisson/security_report.hpp>
#include <caisson/spec.hpp>
#include <caisson/start_hook.hpp>
#include <caisson/sweep.hpp>
#include <caisson/usage.hpp>
// IWYU pragma: end_exports
