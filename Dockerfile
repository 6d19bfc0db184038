# Training and evaluation in a container, with the versions of requirements/lock.txt:
#
#   docker build -t degla .
#   docker build --build-arg DEVICE=cpu --build-arg WHEELS=INDEX -t degla:cpu .
#   docker run --rm --gpus all --ipc host -v "$PWD":/data degla torchrun --nproc-per-node 8 -m degla train ...
#   docker run --rm -v "$PWD":/data degla:cpu degla demo
#
# `cuda` takes PyTorch's wheels for Linux as they are published, which bring CUDA with them. INDEX is the address of its
# smaller wheels for processors, as pytorch.org/get-started names it.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG DEVICE=cuda
ARG WHEELS=
ARG EXTRAS=peft,webdataset,datasets

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /degla
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY src src

ENV PIP_CONSTRAINT=/degla/requirements/lock.txt PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    UV_CONSTRAINT=/degla/requirements/lock.txt UV_NO_CACHE=1
# Of two indexes the newest version is taken, and 2.13.0+cpu is newer than 2.13.0.
RUN case "$DEVICE:$WHEELS" in \
        cuda:) ;; \
        cpu:?*) export PIP_EXTRA_INDEX_URL="$WHEELS" ;; \
        *) echo "DEVICE is cuda, or cpu together with WHEELS, the index of PyTorch's wheels for it." >&2; exit 1 ;; \
    esac \
    && make .venv/.installed \
    && .venv/bin/python -m pip install --quiet -e ".[$EXTRAS]"

ENV PATH=/degla/.venv/bin:$PATH DEGLA_CACHE=/cache
VOLUME /cache
WORKDIR /data
CMD ["degla", "--help"]
