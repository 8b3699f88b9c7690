# Two images from one file; the command picks the service.
#   lean   router, gatekeeper, API, command line: no torch (about 250 MB)
#   model  inference, trainer: torch, transformers, peft, faiss
# docker build --target lean -t twinloop:lean .    docker build --target model -t twinloop:model .
FROM python:3.12.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 UV_COMPILE_BYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
RUN pip install --no-cache-dir uv==0.13.9 \
    && useradd --create-home --uid 10001 twinloop \
    && install -d -o twinloop -g twinloop -m 0700 /var/lib/twinloop \
       /var/lib/twinloop/keys /var/lib/twinloop/state /var/lib/twinloop/cache \
       /var/lib/twinloop/handed/router /var/lib/twinloop/handed/gatekeeper /var/lib/twinloop/handed/inference \
       /var/lib/twinloop/handed/trainer /var/lib/twinloop/handed/api
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY schemas schemas
COPY twinloop twinloop
COPY services services
COPY configs configs

FROM base AS lean
RUN uv pip install --system --no-cache --constraint requirements.lock ".[gatekeeper,api,otel]"
USER twinloop
CMD ["twinloop", "--help"]

FROM base AS model
# Empty: the wheels of the Python registry, CUDA included (4.5 GB). An index that serves CPU-only torch wheels, such as the
# PyTorch project's own, makes the image about 4 GB smaller: --build-arg TORCH_INDEX=<its address>, or TORCH_INDEX in .env.
ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --system --no-cache --index-url "$TORCH_INDEX" torch==2.13.0; fi \
    && uv pip install --system --no-cache --constraint requirements.lock ".[model,otel]"
COPY foundation foundation
USER twinloop
CMD ["twinloop", "--help"]
