// SPDX-License-Identifier: MIT
//
// speckv_regs_only on a ULX3S board with an ECP5-85F: 25 MHz clock, USB serial line, eight LEDs, the power button as reset.

`default_nettype none

module speckv_ulx3s #(
    parameter logic [63:0] BuildId = '0,
    parameter logic [31:0] RtlRevision = 32'h0000_0100
) (
    input  wire logic       clk_25mhz,
    input  wire logic       btn_pwr_n,
    input  wire logic       ftdi_txd, // from the host
    output      logic       ftdi_rxd, // to the host
    output      logic [7:0] led,
    output      logic       wifi_gpio0
);

    assign wifi_gpio0 = 1'b1; // low would let the board's other processor load another bitstream

    speckv_regs_only #(
        .ClockHz(25_000_000), .Baud(115_200), .BuildId(BuildId), .RtlRevision(RtlRevision)
    ) u_regs_only (
        .clk(clk_25mhz), .rst_button_n(btn_pwr_n), .rx(ftdi_txd), .tx(ftdi_rxd), .led
    );

endmodule

`default_nettype wire
