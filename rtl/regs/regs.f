// SPDX-License-Identifier: MIT
// The register block. Paths are relative to this file: read it with -F.
speckv_regs_pkg.sv
speckv_regs.sv
