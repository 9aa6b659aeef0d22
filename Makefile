# Unmask: `make run` and `make test` are all that a fresh Debian machine needs.  `make help` lists the rest.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
# The version is defined once, in include/unmask.h.
VERSION := $(shell sed -n 's/.*UNMASK_VERSION "\(.*\)".*/\1/p' include/unmask.h)
ARCH    := $(shell $(CC) -dumpmachine | sed 's/-.*//')

PACKAGES := libsleef-dev libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev libedit-dev
TEST_PACKAGES := libcmocka-dev
PKGS     := sleef yaml-0.1 jansson libpcre2-8 libutf8proc libedit

WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wvla -Werror=implicit-function-declaration
# -ffp-contract=off: a*b+c must round twice wherever fmaf() is not written, or machines disagree.
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -fno-math-errno -fPIC -pthread -fvisibility=hidden $(WARN) \
             -Iinclude -Isrc -Isimd -Iquant $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS) $(SAN)
LIBS   = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread $(SAN)

# One instruction set per file; nothing else in the program may use those instructions.
FLAGS_avx2         := -mavx2 -mfma -mf16c
FLAGS_avxvnni      := -mavx2 -mfma -mf16c -mavxvnni
FLAGS_avx512vnni   := -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512
FLAGS_neon         := -march=armv8-a
FLAGS_neon_dotprod := -march=armv8.2-a+dotprod
FLAGS_neon_i8mm    := -march=armv8.2-a+dotprod+i8mm

SETS_x86_64  := avx2 avxvnni avx512vnni
SETS_aarch64 := neon neon_dotprod neon_i8mm
ALL_SETS     := $(SETS_x86_64) $(SETS_aarch64)

PROGRAM_SRC := $(wildcard src/main.c src/cmd_*.c src/options.c src/canvas.c src/term.c)
SIMD_SRC    := $(filter-out $(ALL_SETS:%=simd/%.c),$(wildcard simd/*.c)) $(wildcard $(SETS_$(ARCH):%=simd/%.c))
LIB_SRC     := $(filter-out $(PROGRAM_SRC),$(wildcard src/*.c quant/*.c)) $(SIMD_SRC)
LIB_OBJ     := $(LIB_SRC:%.c=$(BUILD)/%.o)
PROGRAM_OBJ := $(PROGRAM_SRC:%.c=$(BUILD)/%.o)
TEST_BIN    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c tests/checkasm.c))

.PHONY: help all run test san bench test-arm test-interop install uninstall clean packages test-packages
.DELETE_ON_ERROR:

help:           ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

all: $(BUILD)/unmask $(BUILD)/libunmask.a    ## build build/unmask and the library

$(BUILD)/unmask: $(PROGRAM_OBJ) $(BUILD)/libunmask.a
	$(CC) -o $@ $^ $(LIBS)

$(BUILD)/libunmask.a: $(LIB_OBJ)
	rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/simd/%.o: simd/%.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(FLAGS_$*) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: tests/%.c $(BUILD)/libunmask.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -o $@ $< $(BUILD)/libunmask.a $(LIBS) -lcmocka

clean:          ## remove build/
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d) $(PROGRAM_OBJ:.o=.d) $(TEST_BIN:=.d)
