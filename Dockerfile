# Weft on the processor, small and without root. `make docker-build`, then `make docker-run ARGS="train FILE"`.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# Further package index to take torch from, e.g. the one with builds for the processor only, which are far smaller.
ARG TORCH_INDEX=""
ARG EXTRAS=examples
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/weft
WORKDIR /source
# Torch first: its layer stays as long as constraints.txt does, whatever changes in the code.
COPY constraints.txt ./
RUN /opt/weft/bin/pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY . ./
RUN /opt/weft/bin/pip install --constraint constraints.txt ".[${EXTRAS}]"

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="weft" \
      org.opencontainers.image.description="Train neural networks with PyTorch, reproducibly" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 1000 weft && useradd --uid 1000 --gid weft --create-home weft && install -d -o weft -g weft /work
COPY --from=build /opt/weft /opt/weft
# HOME is a place that any user may write to: `docker run --user` brings one that has no home here.
ENV PATH="/opt/weft/bin:${PATH}" HOME=/tmp PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["weft"]
CMD ["--help"]
