# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "One descriptor, as many pollers as threads"
set xlabel "faulting threads"
set ylabel "thousand faults a second"
set logscale x
set xrange [0.9:300]
set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256)
set key top right
set datafile missing "-"
plot ARG2 using 1:2 with linespoints lc rgb "#888888" lw 2 pt 1 title "stock, published (256 cores)", \
     "" using 1:3 with linespoints ls 1 title "stock, modelled", \
     "" using 1:4 with linespoints ls 2 title "ours, modelled"
