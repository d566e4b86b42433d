# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "Cache lines that travel between CPUs, for a fault"
set xlabel "faulting threads, one descriptor"
set ylabel "transfers"
set logscale x
set xrange [3:160]
set xtics (4, 16, 64, 128)
set datafile missing "-"
plot ARG2 using 1:2 with linespoints ls 1 title "stock, 4 handlers", \
     "" using 1:3 with linespoints ls 2 title "ours, 4 handlers", \
     "" using 1:4 with linespoints ls 3 title "stock, 16 handlers", \
     "" using 1:5 with linespoints ls 4 title "ours, 16 handlers"
