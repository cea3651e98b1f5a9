// SPDX-License-Identifier: MIT
// The register block behind a serial line: the configuration without an engine. Read with -F.
-F ../regs/regs.f
-F ../uart/uart.f
rtl/speckv_regs_only.sv
