// serve ADDRESS, or client ADDRESS CASE...: see ../../README.md.
const [command, address, ...chosen] = process.argv.slice(2);

if (command === 'serve') {
  require('./server').serve(address);
} else if (command === 'client') {
  require('./cases').run(address, chosen).then((done) => process.exit(done ? 0 : 1));
} else {
  throw new Error(`${command}: serve or client`);
}
