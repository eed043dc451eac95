// The walk-through's two documents, and a way to make one around a piece.
#pragma once

#include <string>
#include <string_view>

namespace caisson_test {

inline constexpr std::string_view walk_through = R"(<domain type='lxc'>
  <name>mycontainer</name>
  <memory>500000</memory>
  <os>
    <type>exe</type>
    <init>/sbin/init</init>
  </os>
  <devices>
    <filesystem type='mount'>
      <source dir='/root/mycontainer'/>
      <target dir='/'/>
    </filesystem>
    <interface type='bridge'>
      <source network='br0'/>
      <mac address='00:11:22:34:34:34'/>
    </interface>
    <console type='pty' />
  </devices>
</domain>
)";

inline constexpr std::string_view live_walk_through = R"(<domain type='lxc' id='28407'>
  <name>mycontainer</name>
  <uuid>8369f1ac-7e46-e869-4ca5-759d51478066</uuid>
  <memory>500000</memory>
  <currentMemory>500000</currentMemory>
  <vcpu>1</vcpu>
  <os>
    <type arch='i686'>exe</type>
    <init>/sbin/init</init>
  </os>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <filesystem type='mount'>
      <source dir='/root/mycontainer'/>
      <target dir='/'/>
    </filesystem>
    <console type='pty' tty='/dev/pts/22'>
      <source path='/dev/pts/22'/>
      <target port='0'/>
    </console>
  </devices>
</domain>
)";

/// A small document with these pieces: `devices` from line 6 on, `extra` in line 5, `memory` in line 3.
inline std::string domain_with(std::string_view devices, std::string_view extra = "",
                               std::string_view memory = "<memory>500000</memory>",
                               std::string_view os = "<os><type>exe</type></os>") {
    return std::string{"<domain type='lxc'>\n<name>web</name>\n"}
        .append(memory)
        .append("\n")
        .append(os)
        .append("\n")
        .append(extra)
        .append("<devices>\n")
        .append(devices)
        .append("</devices></domain>\n");
}

}  // namespace caisson_test
