# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# shellcheck disable=SC2034 # variables for those who source it
#
# What the scripts behind Makefile.patches share; sourced, never run. It finds
# the top of the repository, says things, and guards long steps.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Set by Makefile.patches; the defaults serve whoever runs a script by hand.
BASE=${BASE:-$(sed -n 's/^BASE *?= *//p' "$top/Makefile.patches")}
PIN=${PIN:-$(sed -n "s/^PIN_$BASE *:= *//p" "$top/Makefile.patches")}
CONFIG=${CONFIG:-default}
STOCK=${STOCK:-}
FORCE=${FORCE:-}
JOBS=${JOBS:-$(nproc)}

# Each base has a build directory of its own; "where" is its name for people.
case $BASE in
6.12)
	where=build
	suite=''
	;;
7.3)
	where=build/$BASE
	# No release of Debian brings it. What apt knows of the suite that does
	# stays below its build directory: see host/archive.
	suite=trixie-backports
	;;
*)
	echo "there is no base $BASE; BASE= takes one of: 6.12 7.3" >&2
	exit 1
	;;
esac
build=$top/$where
package=linux-source-$BASE

tree=$build/linux		# the base with the series on top
stock_tree=$build/stock		# the untouched base

say() { echo "== $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# One process at a time in what $1 names; a second one waits and says so.
lock() {
	mkdir -p "$build/lock"
	exec 9>"$build/lock/$1"
	flock -n 9 || {
		say "waiting for another make to finish with $1"
		flock 9
	}
}

# need_disk MEGABYTES WHAT
need_disk() {
	local free
	mkdir -p "$build"
	free=$(df --output=avail -m "$build" | tail -n 1)
	[ "$free" -ge "$1" ] ||
		die "$2 needs $1 MB below $build and only $((free)) MB are free: make room, or move the checkout to a larger disk"
}

need_tool() {
	command -v "$1" >/dev/null ||
		die "$1 is missing; 'make -f Makefile.patches deps' installs it"
}

# What the names of the tools begin with that build for ARCH, as the kernel's
# makefiles call it.
cross_prefix() { # cross_prefix ARCH
	case $1 in
	arm64) echo aarch64-linux-gnu- ;;
	riscv) echo riscv64-linux-gnu- ;;
	arm) echo arm-linux-gnueabihf- ;;
	s390) echo s390x-linux-gnu- ;;
	powerpc) echo powerpc64le-linux-gnu- ;;
	*) die "no compiler known for $1" ;;
	esac
}

# The architecture of a configuration, by the kernel's name for it.
arch_of() { # arch_of FRAGMENT
	local fragment=$1 arch=''
	while [ -z "$arch" ] && [ -n "$fragment" ]; do
		[ -e "$top/kconfig/$fragment" ] || break
		arch=$(sed -n 's/^# arch: *//p' "$top/kconfig/$fragment")
		fragment=$(sed -n 's/^# base: *//p' "$top/kconfig/$fragment")
	done
	echo "${arch:-x86}"
}

# Arguments for the kernel's own make. No "+" or commit id in the version, so
# that a commit does not cost a rebuild; the date stays the same for ccache.
# COMPILER=clang is for x86.
kernel_make() { # kernel_make SOURCE OUTPUT [ARGS...]
	local src=$1 out=$2 name=-uffd arch cc=${COMPILER:-gcc}
	shift 2
	[ "$src" != "$stock_tree" ] || name=-stock
	arch=$(cat "$out/asked.arch" 2>/dev/null || echo x86)
	local cross=()
	if [ "$arch" != x86 ]; then
		cross=(CROSS_COMPILE="$(cross_prefix "$arch")")
		cc=$(cross_prefix "$arch")gcc
	fi
	# Paths relative to the checkout let a second checkout hit the cache. What an
	# object depends on is known from the compiler: where starting a process
	# is dear, a preprocessor beside it costs more than its better guesses save.
	if command -v ccache >/dev/null; then
		export CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1
		cc="$top/host/cc $cc"
	fi
	KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
	KBUILD_BUILD_USER=uffd KBUILD_BUILD_HOST=build \
		nice make -C "$src" O="$out" ARCH="$arch" "${cross[@]}" CC="$cc" \
		LOCALVERSION=$name -j"$JOBS" --no-print-directory "$@"
}

# KUnit tests of ours in SOURCE, built for user mode in OUTPUT and run; ARGS are
# kunit.py's. What the kernel prints of tests, or make of mistakes, goes to stdout.
kunit_run() { # kunit_run SOURCE OUTPUT [ARGS...]
	local src=$1 out=$2 cc=gcc configs
	shift 2
	mapfile -t configs < <(cd "$src" && git ls-files '*userfaultfd/tests/.kunitconfig')
	[ ${#configs[@]} -gt 0 ] || die "no .kunitconfig in the series"
	! command -v ccache >/dev/null || cc="ccache gcc"
	# It makes the last directory of a path, not those above.
	mkdir -p "$(dirname "$out")"
	(cd "$src" && CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1 \
		nice ./tools/testing/kunit/kunit.py run \
		"${configs[@]/#/--kunitconfig=}" --build_dir="$out" \
		--make_options="CC=$cc" --make_options=LOCALVERSION=-uffd \
		--jobs="$JOBS" --raw_output "$@" 2>&1 </dev/null)
}

# kernel_make with the output in a log and progress on stdout. EXPECTED is the
# number of output lines such as "  CC  mm/shmem.o" of a full build, 0 when
# only little is expected to be done.
logged_make() { # logged_make LOG EXPECTED SOURCE OUTPUT [ARGS...]
	local log=$1 expected=$2 status=0
	shift 2
	kernel_make "$@" </dev/null >"$log" 2>&1 &
	show_progress "$log" "$expected" $! || status=$?
	if [ $status != 0 ]; then
		grep -aE -A3 '(error|warning|undefined reference|\*\*\*)' "$log" |
			head -n 40 >&2 || tail -n 20 "$log" >&2
		die "the build failed; all of its output: $log"
	fi
}

show_progress() { # show_progress LOG EXPECTED PID
	local log=$1 expected=$2 pid=$3 began=$SECONDS said=$SECONDS status=0 n text=''
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		n=$(grep -cE '^  [A-Z0-9_]+ ' "$log" || true)
		if [ "$expected" -gt 0 ] && [ "$n" -le $((expected * 11 / 10)) ]; then
			text="$n of about $expected steps, $((SECONDS - began)) s"
		else
			text="$n steps, $((SECONDS - began)) s"
		fi
		if [ -t 1 ]; then
			printf '\r   %s ' "$text"
		elif [ $((SECONDS - said)) -ge 30 ]; then
			echo "   $text"
			said=$SECONDS
		fi
	done
	wait "$pid" || status=$?
	[ ! -t 1 ] || printf '\r\033[K'
	[ $status != 0 ] || say "done: $text"
	return $status
}
