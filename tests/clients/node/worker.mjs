// A worker as a service in Node calls it: @grpc/grpc-js and the contract's .proto files, no code generated.
import { readFileSync } from "node:fs";
import { join } from "node:path";

import grpc from "@grpc/grpc-js";
import { fromJSON } from "@grpc/proto-loader";
import protobuf from "protobufjs";

// What failures carry, as googleapis has it: google/rpc/status.proto and error_details.proto.
const { root: rpc } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true });

const FORM = { keepCase: true, longs: Number, enums: String, oneofs: true, defaults: true };
const UNKNOWN = { metadata: {} };

// protos: the folder with trestle/v1. tls: { ca, certificate, key } as files' names, and the `name` of the certificate.
export class Worker {
  constructor(target, protos, { tls, token } = {}) {
    this.contract = new protobuf.Root();
    this.contract.resolvePath = (_, path) => join(protos, path);
    this.contract.loadSync("trestle/v1/worker_service.proto", { keepCase: true });
    const { trestle } = grpc.loadPackageDefinition(fromJSON(this.contract.toJSON({ keepComments: false }), FORM));
    const credentials = tls
      ? grpc.credentials.createSsl(...[tls.ca, tls.key, tls.certificate].map((name) => (name ? readFileSync(name) : null)))
      : grpc.credentials.createInsecure();
    const options = {
      "grpc.max_receive_message_length": -1,
      "grpc.service_config": '{"loadBalancingConfig": [{"round_robin": {}}]}',
      ...(tls?.name && { "grpc.ssl_target_name_override": tls.name }),
    };
    this.stub = new trestle.v1.WorkerService(target, credentials, options);
    this.metadata = new grpc.Metadata();
    if (token) this.metadata.set("authorization", `Bearer ${token}`);
  }

  // The chunks of an answer as they come. A loop over grpc-js's own stream that is left early leaves the call running:
  // here it ends.
  async *chat(request, { timeout = 600, signal } = {}) {
    const call = this.stub.Chat({ ...request, stream: true }, this.metadata, { deadline: Date.now() + timeout * 1000 });
    signal?.addEventListener("abort", () => call.cancel());
    const begun = new Set();
    const finished = new Set();
    try {
      for await (const { chunks } of call) {
        for (const chunk of chunks) {
          if (chunk.event === "finish") finished.add(chunk.choice);
          else if (chunk.event !== "started" && chunk.event !== "usage") begun.add(chunk.choice);
          yield chunk;
        }
      }
    } finally {
      call.cancel();
    }
    const whole = finished.size > 0 && [...begun].every((choice) => finished.has(choice));
    if (!whole) throw new Error("the worker ended the answer without a finish");
  }

  // The only response of an answer in one piece, or of a method that has no other.
  ask(method, request, { timeout = 600, signal } = {}) {
    return new Promise((resolve, reject) => {
      const done = (error, response) => (error ? reject(error) : resolve(response));
      const { path, requestSerialize, responseDeserialize } = this.stub[method];
      const options = { deadline: Date.now() + timeout * 1000 };
      const call = this.stub.makeUnaryRequest(
        path, requestSerialize, responseDeserialize, request, this.metadata, options, done,
      );
      signal?.addEventListener("abort", () => call.cancel());
    });
  }

  // What a failed call says of itself, beside `code` and `details`.
  failure(error) {
    const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
    if (!bytes) return UNKNOWN;
    const said = { ...UNKNOWN };
    for (const { type_url: type, value } of rpc.lookupType("google.rpc.Status").decode(bytes).details) {
      if (type.endsWith("/google.rpc.ErrorInfo")) {
        Object.assign(said, rpc.lookupType("google.rpc.ErrorInfo").decode(value));
      } else if (type.endsWith("/google.rpc.RetryInfo")) {
        const { seconds, nanos } = rpc.lookupType("google.rpc.RetryInfo").decode(value).retry_delay;
        said.retryAfter = Number(seconds) + nanos / 1e9;
      } else if (type.endsWith("/trestle.v1.Usage")) {
        const usage = this.contract.lookupType("trestle.v1.Usage");
        said.usage = usage.toObject(usage.decode(value), { longs: Number });
      }
    }
    return said;
  }
}
