// SPDX-License-Identifier: MIT
//
// speckv_regs_only under Verilator, its serial line on stdin and stdout: test_regs_only.py drives it.
//
// A line in is one of     bytes HEX   send these bytes, then run until the line has been silent for a while
//                         wait N      run N bit times
//                         reset       hold the reset button, let go, and wait until the block is out of reset
// and each is answered by a line: HEX of the bytes that the card sent ("-": none), a space, the LEDs in hex.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "Vspeckv_regs_only.h"
#include "verilated.h"

namespace {

constexpr unsigned kClocksPerBit = 8; // the parameters of the verilated model say the same
constexpr unsigned kSilentBits = 40;

class Line {
public:
    explicit Line(Vspeckv_regs_only &dut) : dut_(dut)
    {
        dut_.rx = 1;
        dut_.rst_button_n = 1;
    }

    void bits(unsigned count)
    {
        for (unsigned i = 0; i < count * kClocksPerBit; i++)
            clock();
    }

    void send(uint8_t byte)
    {
        const unsigned frame = 0x200u | static_cast<unsigned>(byte) << 1;

        for (unsigned i = 0; i < 10; i++) {
            dut_.rx = frame >> i & 1;
            bits(1);
        }
        dut_.rx = 1;
    }

    void settle()
    {
        do {
            silent_ = 0;
            bits(1);
            while (silent_ < kSilentBits * kClocksPerBit && silent_ != 0)
                clock();
        } while (silent_ < kSilentBits * kClocksPerBit);
    }

    void reset()
    {
        dut_.rst_button_n = 0;
        bits(4);
        dut_.rst_button_n = 1;
        bits(60);
        received_.clear();
    }

    std::vector<uint8_t> take()
    {
        std::vector<uint8_t> taken;
        taken.swap(received_);
        return taken;
    }

private:
    void clock()
    {
        dut_.clk = 0;
        dut_.eval();
        dut_.clk = 1;
        dut_.eval();
        listen();
    }

    void listen()
    {
        if (count_ == 0) {
            if (dut_.tx) {
                silent_++;
                return;
            }
            count_ = 10 * kClocksPerBit; // a start bit
            data_ = 0;
        }
        silent_ = 1;
        const unsigned at = 10 * kClocksPerBit - count_;
        if (at % kClocksPerBit == kClocksPerBit / 2) {
            const unsigned bit = at / kClocksPerBit;
            if ((bit == 0 && dut_.tx) || (bit == 9 && !dut_.tx)) {
                std::fprintf(stderr, "a framing error on the card's line\n");
                std::exit(1);
            }
            if (bit >= 1 && bit <= 8)
                data_ |= static_cast<unsigned>(dut_.tx) << (bit - 1);
        }
        if (--count_ == 0)
            received_.push_back(static_cast<uint8_t>(data_));
    }

    Vspeckv_regs_only &dut_;
    unsigned count_ = 0, data_ = 0, silent_ = 0;
    std::vector<uint8_t> received_;
};

} // namespace

int main(int argc, char **argv)
{
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vspeckv_regs_only dut{&context};
    Line line{dut};

    for (std::string text; std::getline(std::cin, text);) {
        std::istringstream words{text};
        std::string verb, value;
        words >> verb >> value;
        if (verb == "bytes") {
            for (size_t i = 0; i + 1 < value.size(); i += 2)
                line.send(static_cast<uint8_t>(std::stoul(value.substr(i, 2), nullptr, 16)));
            line.settle();
        } else if (verb == "wait") {
            line.bits(static_cast<unsigned>(std::stoul(value)));
        } else if (verb == "reset") {
            line.reset();
        } else {
            std::fprintf(stderr, "not understood: %s\n", text.c_str());
            return 2;
        }
        const auto taken = line.take();
        if (taken.empty())
            std::printf("-");
        for (const uint8_t byte : taken)
            std::printf("%02x", byte);
        std::printf(" %02x\n", dut.led);
        std::fflush(stdout);
    }
    dut.final();
    return 0;
}
