// Makes a call by gRPC for Node, prints what it is told, and stays for three seconds.
const grpc = require('@grpc/grpc-js');

const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
const same = (bytes) => bytes;
const path = '/ping.v1.PingService/Ping';
const deadline = new Date(Date.now() + 10000);
client.makeUnaryRequest(path, same, same, Buffer.alloc(0), new grpc.Metadata(), { deadline }, (error) => {
  console.log(error ? `${grpc.status[error.code]} ${error.details}` : 'OK');
  setTimeout(() => process.exit(), 3000);
});
