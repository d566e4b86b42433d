#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Search all states of each model with Spin: as it is nothing must be wrong, and
# with each BREAK_ that its opening comment names something must be. Prints TAP.
set -euo pipefail
cd "$(dirname "$0")"
models=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# errors MODEL [-D...]: how many errors Spin finds, in how many states.
errors() {
	local model=$1
	shift
	rm -f pan*
	spin "$@" -a "$models/$model.pml" >spin.log 2>&1 || {
		cat spin.log >&2
		return 1
	}
	gcc -O2 -w -DSAFETY pan.c -o pan
	./pan -m1000000 >pan.log
	if ! grep -q '^Full statespace search' pan.log ||
	   grep -q 'search incomplete\|max search depth too small' pan.log; then
		grep -q 'errors: [1-9]' pan.log || {
			cat pan.log >&2
			return 1
		}
	fi
	sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

breaks() { # breaks MODEL: the ways to break it
	grep -o 'BREAK_[A-Z_]*$' <(grep '^#if' "$models/$1.pml") | sort -u
}

states() {
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log
}

declare -A variants=([park]="-DNORMAL -DSIGNAL" [readers]=-DNORMAL
	[gate]="-DNORMAL -DNOWAIT -DMERGE")
n=0 bad=0
say() { # say OK WHAT
	n=$((n + 1))
	if [ "$1" = 1 ]; then
		echo "ok $n $2"
	else
		echo "not ok $n $2"
		bad=1
	fi
}

echo "TAP version 13"
plan=0
for model in park readers gate; do
	plan=$((plan + $(wc -w <<<"${variants[$model]}") +
		$(breaks $model | wc -l)))
done
echo "1..$plan"
for model in park readers gate; do
	for variant in ${variants[$model]}; do
		found=$(errors $model "$variant")
		name=$model${variant/#-DNORMAL/}
		say $((found == 0)) "${name/-D/ with }: holds in $(states) states"
	done
	while read -r break; do
		caught=0
		for variant in ${variants[$model]}; do
			found=$(errors $model "$variant" "-D$break")
			[ "$found" = 0 ] || caught=1
		done
		say $caught "$model: $break is found"
	done < <(breaks $model)
done
exit $bad
