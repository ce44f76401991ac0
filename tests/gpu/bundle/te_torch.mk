# Compiles Transformer Engine's extension for torch file by file, so that it may be interrupted.
#
#   make -f te_torch.mk -j N PYTHON=python SOURCE=unpacked-sdist BUILD=folder
#
# The headers of torch are parsed once, in a precompiled header: they take most of the time. PYTHON
# has torch; CUDA's headers come from its packages or from a toolkit.
PYTHON ?= python3
SOURCE ?= te-torch
BUILD ?= build
.DELETE_ON_ERROR:

# torch's folder, the suffix of extensions, and where headers are
paths := $(shell $(PYTHON) -c "import glob, os, sysconfig; \
    from importlib.util import find_spec; \
    site = sysconfig.get_path('purelib'); torch = os.path.dirname(find_spec('torch').origin); \
    print(torch, sysconfig.get_config_var('EXT_SUFFIX'), \
    '-isystem', sysconfig.get_path('include'), \
    *(f'-isystem {torch}/include{more}' for more in ('', '/torch/csrc/api/include')), \
    *(f'-isystem {found}' for found in sorted(glob.glob(site + '/nvidia/*/include'))))")
torch := $(word 1,$(paths))
library := $(BUILD)/transformer_engine_torch$(word 2,$(paths))
toolkit := $(firstword $(CUDA_HOME) $(wildcard /usr/local/cuda /usr/local/cuda-13*))

headers := -I$(SOURCE)/csrc -I$(SOURCE)/common_headers -I$(SOURCE)/common_headers/common \
    -I$(SOURCE)/common_headers/common/include $(wordlist 3,$(words $(paths)),$(paths)) \
    $(foreach folder,$(wildcard $(toolkit)/include $(toolkit)/include/cccl),-isystem $(folder))
flags := -std=c++17 -fPIC -O2 -g0 -DNDEBUG -fvisibility=hidden -w \
    -DTORCH_EXTENSION_NAME=transformer_engine_torch -DTORCH_API_INCLUDE_EXTENSION_H

sources := $(shell find $(SOURCE)/csrc -name '*.cpp')
objects := $(sources:$(SOURCE)/csrc/%.cpp=$(BUILD)/%.o)

$(library): $(objects)
	$(CXX) -shared -o $@ $(objects) -L$(torch)/lib -lc10 -lc10_cuda -ltorch -ltorch_cpu \
	    -ltorch_cuda -ltorch_python
	strip --strip-unneeded $@

$(BUILD)/all.h.gch:
	mkdir -p $(@D)
	printf '#include <torch/extension.h>\n#include <torch/torch.h>\n' > $(BUILD)/all.h
	$(CXX) $(flags) $(headers) -x c++-header -o $@ $(BUILD)/all.h

$(BUILD)/%.o: $(SOURCE)/csrc/%.cpp $(BUILD)/all.h.gch
	mkdir -p $(@D)
	$(CXX) $(flags) -include $(BUILD)/all.h $(headers) -c -o $@ $<
