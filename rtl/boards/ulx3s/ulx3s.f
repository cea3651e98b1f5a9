// SPDX-License-Identifier: MIT
// The same on a ULX3S board. Read with -F.
-F ../../regs_only/regs_only.f
speckv_ulx3s.sv
