# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "A wake-up that concerns nobody"
set xlabel "threads blocked elsewhere"
set ylabel "instructions per UFFDIO\\_WAKE"
set logscale xy
set xrange [0.9:4600]
set yrange [100:*]
set xtics (1, 4, 16, 64, 256, "1,024" 1024, "4,096" 4096)
plot ARG2 using 1:2 with linespoints ls 1 title "stock", \
     "" using 1:3 with linespoints ls 2 title "ours"
