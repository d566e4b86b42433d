# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "Many threads fault, a reader for each four"
set xlabel "faulting threads"
set ylabel "instructions per fault"
set logscale x
set xrange [0.9:72]
set xtics (1, 2, 4, 8, 16, 32, 64)
plot ARG2 using 1:2 with linespoints ls 1 title "stock", \
     "" using 1:3 with linespoints ls 2 title "ours"
