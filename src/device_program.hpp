// device_program.hpp - device rules as a program for the kernel.
#pragma once

#include <vector>

#include <linux/bpf.h>

#include <caisson/device.hpp>

namespace caisson::inline v0::detail {

/// A program of the type BPF_PROG_TYPE_CGROUP_DEVICE, which gives 1 where a rule allows all that is asked for, else 0.
[[nodiscard]] std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules);

}  // namespace caisson::inline v0::detail
