# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "A missing page, from fault to resolved: what a reader more costs"
set xlabel "readers blocked in read()"
set ylabel "instructions per fault"
set logscale x
set xrange [0.9:18]
set xtics (1, 2, 4, 8, 16)
plot ARG2 using 1:4 with linespoints ls 3 title "Linux 7.3", \
     "" using 1:2 with linespoints ls 1 title "Linux 6.12", \
     "" using 1:5 with linespoints ls 4 title "ours on 7.3", \
     "" using 1:3 with linespoints ls 2 title "ours on 6.12"
