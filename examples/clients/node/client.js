// A Ping client. The address picks the transport: unix:/tmp/ping.sock or 127.0.0.1:50051.
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const protos = path.join(__dirname, '../../../proto');
const definition = loader.loadSync('ping/v1/ping.proto', { includeDirs: [protos] });
const { PingService } = grpc.loadPackageDefinition(definition).ping.v1;

const address = process.argv[2] ?? 'unix:/tmp/ping.sock';
const client = new PingService(address, grpc.credentials.createInsecure());
const deadline = new Date(Date.now() + 5000);
client.ping({ message: 'ping' }, { deadline }, (error, reply) => {
  if (error) {
    console.error(error.message);
    process.exitCode = 1;
  } else {
    console.log(reply.message);
  }
  client.close();
});
