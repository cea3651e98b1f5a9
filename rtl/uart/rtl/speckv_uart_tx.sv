// SPDX-License-Identifier: MIT
//
// UART transmitter: 8 data bits, no parity, one stop bit, least significant bit first.
//
// Throughput: a byte every 10 bits. Input: AXI-Stream; a byte is taken in the cycle in which tvalid and tready are 1,
// and tready stays 0 until its stop bit is over.

`default_nettype none

module speckv_uart_tx #(
    parameter int unsigned ClocksPerBit = 217
) (
    input  wire logic       clk,
    input  wire logic       rst_n,
    input  wire logic       s_axis_tvalid,
    output      logic       s_axis_tready,
    input  wire logic [7:0] s_axis_tdata,
    output      logic       tx
);

    if (ClocksPerBit < 4) begin : g_check
        $fatal(1, "ClocksPerBit must be at least 4");
    end

    localparam int unsigned CountBits = $clog2(ClocksPerBit);
    localparam logic [CountBits-1:0] Full = CountBits'(ClocksPerBit - 1);

    logic [CountBits-1:0] count_q;
    logic [3:0] bits_q; // bits left, the one on the line included
    logic [8:0] shift_q;
    logic tx_q;

    assign s_axis_tready = bits_q == '0;

    always_ff @(posedge clk) begin
        if (bits_q == '0) begin
            if (s_axis_tvalid) begin
                {shift_q, tx_q} <= {1'b1, s_axis_tdata, 1'b0};
                bits_q <= 4'd10;
                count_q <= Full;
            end
        end else if (count_q != '0) begin
            count_q <= count_q - 1'b1;
        end else begin
            {shift_q, tx_q} <= {1'b1, shift_q};
            bits_q <= bits_q - 4'd1;
            count_q <= Full;
        end
        if (!rst_n) begin
            count_q <= '0;
            bits_q <= '0;
            shift_q <= '1;
            tx_q <= 1'b1;
        end
    end

    assign tx = tx_q;

endmodule

`default_nettype wire
