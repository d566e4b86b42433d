# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
set title "Dirty pages of 256 MiB are found and protected again"
set xlabel "dirty pages"
set ylabel "instructions"
set logscale xy
set xrange [0.9:1150]
set yrange [500:*]
set xtics (1, 4, 16, 64, 256, "1,024" 1024)
set key bottom right noreverse Right
plot ARG2 using 1:2 with linespoints ls 1 title "PAGEMAP\\_SCAN, stock", \
     "" using 1:3 with linespoints ls 3 title "PAGEMAP\\_SCAN, ours", \
     "" using 1:4 with linespoints ls 4 title "write log, read() and WRITEPROTECT", \
     "" using 1:5 with linespoints ls 2 title "write log, EXCHANGE"
