# SPDX-License-Identifier: GPL-2.0
#
# What the plots have in common: gnuplot -c PLOT STYLE DATA OUTPUT
set terminal svg size 720,440 dynamic background rgb "white" font "sans-serif,13"
set grid ytics lc rgb "#dddddd" lt 1
set border 3 lc rgb "#666666"
set tics nomirror
set key top left reverse Left samplen 2
set yrange [0:*]
set format y "%'.0f"
set style line 1 lc rgb "#b5482f" lw 2 pt 7 ps 0.7
set style line 2 lc rgb "#1f6f8b" lw 2 pt 5 ps 0.7
set style line 3 lc rgb "#b5482f" lw 2 pt 6 ps 0.7 dt 2
set style line 4 lc rgb "#1f6f8b" lw 2 pt 4 ps 0.7 dt 2
