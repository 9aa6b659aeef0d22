# Unmask: `make run` and `make test` are all that a fresh Debian machine needs.  `make help` lists the rest.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
OBJCOPY ?= $(shell $(CC) -print-prog-name=objcopy)
# The version is defined once, in include/unmask.h.
VERSION := $(shell sed -n 's/.*UNMASK_VERSION "\(.*\)".*/\1/p' include/unmask.h)
# Before 1.0 a minor version may add members to the structures of unmask.h, which their users hold.
SONAME  := libunmask.so.$(basename $(VERSION))
ARCH    := $(shell $(CC) -dumpmachine | sed 's/-.*//')

PACKAGES := libsleef-dev libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev libedit-dev nettle-dev
TEST_PACKAGES := libcmocka-dev
PKG_CONFIG ?= pkg-config
# What the library needs, and what the program needs besides.
LIB_PKGS := sleef jansson libpcre2-8 libutf8proc
PKGS     := $(LIB_PKGS) nettle yaml-0.1 libedit
WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wvla -Werror=implicit-function-declaration
# -ffp-contract=off: a*b+c must round twice wherever fmaf() is not written, or machines disagree.
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -fno-math-errno -fPIC -pthread -fvisibility=hidden $(WARN) \
             -Iinclude -iquote src -iquote simd -iquote quant $(PKG_CFLAGS) $(CFLAGS) $(SAN)
LIBS     = $(LDFLAGS) $(PKG_LIBS) -lm -pthread $(SAN)
LIB_LIBS = $(LDFLAGS) $(PKG_LIB_LIBS) -lm -pthread $(SAN)
# Asked once, when first needed: the packages may be installed only after this file was read.
PKG_CFLAGS   = $(eval PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS     = $(eval PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PKGS)))$(PKG_LIBS)
PKG_LIB_LIBS = $(eval PKG_LIB_LIBS := $(shell $(PKG_CONFIG) --libs $(LIB_PKGS)))$(PKG_LIB_LIBS)
# As many compilers as cores, unless -j was given.
JOBS = $(if $(findstring j,$(firstword -$(MAKEFLAGS))),,-j$(shell nproc))
# One instruction set per file of simd/; nothing else in the program may use those instructions.  Where variables live in unrolled
# kernels takes the compiler half of its time to find out, and nobody asks: lines are enough (-g1).
FLAGS_avx2         := -mavx2 -mfma -mf16c -g1
FLAGS_avxvnni      := -mavx2 -mfma -mf16c -mavxvnni -g1
FLAGS_avx512vl     := -mavx512f -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=256 -g1
FLAGS_avx512vnni   := -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512 -g1
FLAGS_avx512zen    := $(FLAGS_avx512vnni) -mavx512bf16
FLAGS_amx          := $(FLAGS_avx512zen) -mamx-tile -mamx-int8 -mgfni
# gcc moves loads up before it hands out registers, and then spills sums; the CPUs find the loads by themselves.
NEON_ORDER         := $(if $(findstring clang,$(shell $(CC) --version)),,-fno-schedule-insns)
FLAGS_neon         := -march=armv8-a $(NEON_ORDER)
FLAGS_neon_dotprod := -march=armv8.2-a+dotprod -mtune=cortex-a76 $(NEON_ORDER)
FLAGS_neon_i8mm    := -march=armv8.2-a+dotprod+i8mm $(NEON_ORDER)

SETS_x86_64  := avx2 avxvnni avx512vl avx512vnni avx512zen amx
SETS_aarch64 := neon neon_dotprod neon_i8mm
ALL_SETS     := $(SETS_x86_64) $(SETS_aarch64)

# The library is what include/unmask.h offers: what makes model files, and looks at disks, is the program's.
FORMATS     := format f16 f32 bf16 q8_0 q4_0 q4_k q6_k scale_search
PROGRAM_SRC := $(filter-out $(FORMATS:%=quant/%.c),$(wildcard quant/*.c)) \
               $(wildcard $(patsubst %,src/%.c,main cmd cmd_* bench* eval_* options configfile datafiles recipe \
               calibration_text term jsonl canvas holes outfile gguf_write probe))
SIMD_SRC    := $(filter-out $(ALL_SETS:%=simd/%.c),$(wildcard simd/*.c)) $(wildcard $(SETS_$(ARCH):%=simd/%.c))
LIB_SRC     := $(filter-out $(PROGRAM_SRC),$(wildcard src/*.c quant/*.c)) $(SIMD_SRC)
LIB_OBJ     := $(LIB_SRC:%.c=$(BUILD)/%.o)
PROGRAM_OBJ := $(PROGRAM_SRC:%.c=$(BUILD)/%.o)
TEST_BIN    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c tests/checkasm.c))

.PHONY: help all run test san bench bench-peers test-arm test-interop install uninstall clean run-packages test-packages arm-packages arm-model tests
.PHONY: always
.DELETE_ON_ERROR:

help:           ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

# ---- packages: what is missing is installed by apt, as root or through sudo; elsewhere it is named

# $(call install,WHAT FOR,PACKAGES)
define install
@missing=; for p in $(2); do \
    dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then \
    if ! command -v apt-get >/dev/null; then echo "Please install, for $(1):$$missing (names of Debian's packages)"; exit 1; fi; \
    if [ "$$(id -u)" -eq 0 ]; then as=; elif command -v sudo >/dev/null; then as=sudo; else \
        echo "Please run, for $(1):  apt-get install$$missing"; exit 1; fi; \
    echo "Installing, for $(1):$$missing"; \
    $$as apt-get update -qq; DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $$missing >/dev/null || exit 1; \
fi
endef

run-packages:
	$(call install,building Unmask,gcc libc6-dev pkg-config $(PACKAGES))

test-packages: run-packages
	$(call install,the tests,$(TEST_PACKAGES))

# ---- the two commands of a newcomer

run: run-packages       ## install what is missing, build, and let the embedded model write
	@$(MAKE) --no-print-directory $(JOBS) all
	@echo; echo 'unmask run "turn on the kitchen light"'
	@$(BUILD)/unmask run "turn on the kitchen light"
	@echo; echo 'unmask infill "Tom had a red ball. One day [[8]] Tom was very sad."'
	@$(BUILD)/unmask infill "Tom had a red ball. One day [[8]] Tom was very sad."

test: test-packages     ## build and run all tests
	@$(MAKE) --no-print-directory $(JOBS) all tests
	@tests/run_tests.sh $(BUILD)

tests: $(TEST_BIN)

san: test-packages      ## the tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory $(JOBS) BUILD=$(BUILD)-san SAN="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all" CFLAGS="-O1 -g" all tests
	@UNMASK_TESTS_SHORT=1 tests/run_tests.sh $(BUILD)-san

bench: run-packages     ## measure kernels and whole passes: the embedded model, random weights of 0.5B and, where memory allows, 8B
	@$(MAKE) --no-print-directory $(JOBS) all
	@tests/bench.sh $(BUILD)

bench-peers: all        ## the same passes here and in a published build of llama.cpp (needs npm and the network)
	@CC="$(CC)" tests/interop/bench_peers.sh $(BUILD)

test-interop: all       ## compare with what other programs made (needs the network)
	@tests/interop/tokenizers.sh $(BUILD)
	@tests/interop/gguf.sh $(BUILD)

# ---- CPUs that this machine is not: an x86 machine builds for AArch64 and emulates.  The arm64 libraries are unpacked
# below build/; nothing of the system changes but the compiler and the emulator that come with it.

ARM_ROOT  = $(abspath $(BUILD))/arm/root
ARM_LIBS  = $(ARM_ROOT)/usr/lib/aarch64-linux-gnu
ARM_BUILD = $(MAKE) --no-print-directory -j$(shell nproc) BUILD=$(BUILD)/arm CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar \
            PKG_CONFIG="PKG_CONFIG_SYSROOT_DIR=$(ARM_ROOT) PKG_CONFIG_LIBDIR=$(ARM_LIBS)/pkgconfig pkg-config" \
            CFLAGS="-O2 -g -isystem $(ARM_ROOT)/usr/include/aarch64-linux-gnu" \
            LDFLAGS="-L$(ARM_LIBS) -Wl,--disable-new-dtags,-rpath,$(ARM_LIBS):$(ARM_ROOT)/lib/aarch64-linux-gnu"

arm-packages: test-packages
	$(call install,the tests on emulated CPUs,gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
	@tests/arm_libs.sh $(ARM_ROOT)

test-arm: arm-packages  ## the tests on emulated CPUs: Cortex-A72, A76, newer ARM, older x86
	@$(MAKE) --no-print-directory -j$(shell nproc) all tests
	@$(ARM_BUILD) all tests
	@tests/emulate.sh $(BUILD)

arm-model: arm-packages ## what the ARM matrix products cost, by an emulator's counts and a pipeline model
	$(call install,the pipeline model,llvm-19)
	@$(ARM_BUILD) $(BUILD)/arm/tests/gemm_once
	@tests/arm_model.sh $(BUILD)/arm

# ---- build; make Q= shows the commands

Q := @

all: $(BUILD)/unmask $(BUILD)/libunmask.a $(BUILD)/libunmask.so    ## build the program and the library

$(BUILD)/unmask: $(PROGRAM_OBJ) $(BUILD)/libunmask.a
	@echo "  LD $@"
	$(Q)$(CC) -o $@ $^ $(LIBS)

# The Makefile says what belongs to the library.
$(BUILD)/libunmask.a: $(LIB_OBJ) Makefile
	@echo "  AR $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)

# What is installed is one object in which hidden names are local: a program's own may be the same.  Tests link with the other one.
$(BUILD)/libunmask-installed.a: $(LIB_OBJ) Makefile
	@echo "  AR $@"
	$(Q)$(CC) -r -nostdlib -o $(BUILD)/unmask.o $(LIB_OBJ) && $(OBJCOPY) --localize-hidden $(BUILD)/unmask.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(BUILD)/unmask.o

$(BUILD)/libunmask.so: $(LIB_OBJ) Makefile
	@echo "  LD $@"
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) -o $@ $(LIB_OBJ) $(LIB_LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(FLAGS_$(*F)) -MMD -MP -c -o $@ $<

# Another PREFIX makes that one object anew, so that what is installed looks where its files are installed.
FLAGS_datafiles = -DDATADIR='"$(PREFIX)/share/unmask"'
$(BUILD)/src/datafiles.o: $(BUILD)/prefix
$(BUILD)/prefix: always
	@mkdir -p $(@D)
	@echo '$(PREFIX)' | cmp -s - $@ || echo '$(PREFIX)' >$@

# These tests make the system's functions fail, under the names that the linker gives them.
LINK_test_faults := $(foreach f,malloc calloc realloc posix_memalign free write pwrite pwrite64 fsync renameat,-Wl,--wrap=$(f))
LINK_test_stream := $(foreach f,pread pread64,-Wl,--wrap=$(f))

# Tests reach everything but main(): the library, and the program's own parts.
TEST_OBJ := $(filter-out $(BUILD)/src/main.o $(BUILD)/src/cmd%.o $(BUILD)/src/bench%.o,$(PROGRAM_OBJ))
$(BUILD)/tests/%: tests/%.c $(TEST_OBJ) $(BUILD)/libunmask.a
	@mkdir -p $(@D)
	@echo "  CC $<"
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -o $@ $< $(TEST_OBJ) $(BUILD)/libunmask.a $(LIBS) -lcmocka $(LINK_$*)

# ---- installation

LIBDIR = $(DESTDIR)$(PREFIX)/lib
install: all $(BUILD)/libunmask-installed.a     ## install below PREFIX (/usr/local), DESTDIR in front
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/share/unmask/models/eval $(DESTDIR)$(PREFIX)/share/unmask/configs/quant
	install -m 755 $(BUILD)/unmask $(DESTDIR)$(PREFIX)/bin/unmask
	install -m 644 include/unmask.h $(DESTDIR)$(PREFIX)/include/unmask.h
	install -m 644 $(BUILD)/libunmask-installed.a $(LIBDIR)/libunmask.a
	install -m 755 $(BUILD)/libunmask.so $(LIBDIR)/libunmask.so.$(VERSION)
	ln -sf libunmask.so.$(VERSION) $(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(LIBDIR)/libunmask.so
	printf 'prefix=%s\nexec_prefix=$${prefix}\nlibdir=$${exec_prefix}/lib\nincludedir=$${prefix}/include\n\nName: unmask\nDescription: masked-diffusion language models on the CPU\nVersion: %s\nCflags: -I$${includedir}\nLibs: -L$${libdir} -lunmask\nRequires.private: $(LIB_PKGS)\nLibs.private: -lm -pthread\n' \
	    '$(PREFIX)' '$(VERSION)' > $(LIBDIR)/pkgconfig/unmask.pc
	install -m 644 models/*.gguf models/*.md $(DESTDIR)$(PREFIX)/share/unmask/models/
	install -m 644 models/eval/* $(DESTDIR)$(PREFIX)/share/unmask/models/eval/
	install -m 644 configs/*.yaml $(DESTDIR)$(PREFIX)/share/unmask/configs/
	install -m 644 configs/quant/*.yaml $(DESTDIR)$(PREFIX)/share/unmask/configs/quant/

uninstall:      ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/unmask $(DESTDIR)$(PREFIX)/include/unmask.h $(LIBDIR)/libunmask.* $(LIBDIR)/pkgconfig/unmask.pc
	rm -rf $(DESTDIR)$(PREFIX)/share/unmask

clean:          ## remove what was built
	rm -rf $(BUILD) $(BUILD)-san

-include $(LIB_OBJ:.o=.d) $(PROGRAM_OBJ:.o=.d) $(TEST_BIN:=.d)
