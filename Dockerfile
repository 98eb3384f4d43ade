# `sawlog serve` as a container of SageMaker (docs/endpoint.md says how to deploy it):
#
#   docker build -t sawlog .
#   docker run -p 8080:8080 -v "$PWD/models:/opt/ml/model:ro" sawlog serve
#
# There is no model in the image: SageMaker unpacks model.tar.gz into /opt/ml/model.

FROM rust:1.95-bookworm AS build
WORKDIR /sawlog
COPY . .
RUN cargo build --release --locked --bin sawlog

# Debian 12's C library and nothing else: no shell, no package manager. The release is in the image's
# name; its tags are variants.
# hadolint ignore=DL3006
FROM gcr.io/distroless/cc-debian12
COPY --from=build /sawlog/target/release/sawlog /usr/local/bin/sawlog
# SageMaker may choose the port by SAGEMAKER_BIND_TO_PORT, which `serve` reads.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/sawlog"]
# SageMaker says `serve` itself.
CMD ["serve"]
