// The services, from the descriptors that protoc has written beside this file.
import fs from 'node:fs';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const file = fs.readFileSync(new URL('protos.bin', import.meta.url));
export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, file));

export const Ping = registry.getService('ping.v1.PingService');
export const Interop = registry.getService('interop.v1.InteropService');
export const Health = registry.getService('grpc.health.v1.Health');
export const Reflection = registry.getService('grpc.reflection.v1.ServerReflection');
export const PingRequest = registry.getMessage('ping.v1.PingRequest');
