# SPDX-License-Identifier: GPL-2.0
load ARG1
set output ARG3
huge = system("dirname '".ARG2."'")."/copy-huge.dat"
set title "UFFDIO\\_COPY"
set xlabel "size of a call"
set ylabel "instructions per page of 4 KiB"
set key top right noreverse Right
set logscale x
set xrange [3500:2400000]
set xtics ("4 KiB" 4096, "16 KiB" 16384, "64 KiB" 65536, \
           "256 KiB" 262144, "" 1048576, "2 MiB" 2097152)
plot ARG2 using 1:2 with linespoints ls 1 title "stock", \
     huge using 1:2 with linespoints ls 3 title "stock, huge pages allowed", \
     ARG2 using 1:3 with linespoints ls 2 title "ours", \
     huge using 1:3 with linespoints ls 4 title "ours, huge pages allowed"
