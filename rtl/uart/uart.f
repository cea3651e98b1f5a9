// SPDX-License-Identifier: MIT
// A serial line as an AXI4-Lite manager. Read with -F.
rtl/speckv_uart_rx.sv
rtl/speckv_uart_tx.sv
rtl/speckv_uart_axil.sv
