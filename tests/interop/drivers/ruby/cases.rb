# The cases, on the grpc gem.
require 'google/protobuf/well_known_types'
require 'grpc'
require 'grpc/health/v1/health_services_pb'
require 'grpc/reflection/v1/reflection_services_pb'
require 'interop/v1/interop_services_pb'
require 'ping/v1/ping_services_pb'

LIMIT = 4 << 20
PATIENCE = 30
PING = 'ping.v1.PingService'

class Different < StandardError; end

def expect(name, found, expected)
  raise Different, "#{name}: #{found.inspect[0, 200]} instead of #{expected.inspect[0, 200]}" unless found == expected
end

def failure
  result = yield
  raise Different, "no error but #{result.inspect[0, 200]}"
rescue GRPC::BadStatus => e
  e
end

# The deadline of a call that should take a moment.
def patient(**options)
  { deadline: Time.now + PATIENCE, **options }
end

def unique
  "#{Process.pid} #{Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)}"
end

# The payload that makes a ping, or its pong, `size` bytes.
def payload_of(size)
  "\0".b * (size - 11)
end

# Each case opens its channels by calling `open` with a stub's class.
class Cases
  include Ping::V1
  include Interop::V1

  def initialize(address)
    @address = address
  end

  def open(service, **channel_args)
    # A channel of its own: by default equal ones would share a connection.
    args = { 'grpc.use_local_subchannel_pool' => 1, **channel_args }
    service::Stub.new(@address, :this_channel_is_insecure, channel_args: args)
  end

  def unary
    request = PingRequest.new(message: 'ping', payload: "\x00\x01\xff".b, sequence: 7)
    found = open(PingService).ping(request, **patient)
    expect('reply', [found.message, found.payload, found.sequence], ['pong', "\x00\x01\xff".b, 7])
  end

  def watch
    pongs = open(PingService).watch(WatchRequest.new(count: 3), **patient)
    expect('sequences', pongs.map(&:sequence), [0, 1, 2])
  end

  def collect
    pings = Array.new(3) { CollectRequest.new(payload: "\0".b * 100) }
    found = open(PingService).collect(pings, **patient)
    expect('collected', [found.count, found.bytes], [3, 300])
  end

  def converse
    turns = Queue.new
    turns << ConverseRequest.new(message: 'ping', sequence: 0)
    requests = Enumerator.new do |out|
      loop do
        turn = turns.pop
        out << turn
        break if turn.message == 'end'
      end
    end
    replies = open(PingService).converse(requests, **patient).map do |reply|
      turn = reply.sequence < 2 ? 'ping' : 'end'
      turns << ConverseRequest.new(message: turn, sequence: reply.sequence + 1)
      [reply.message, reply.sequence]
    end
    expect('replies', replies, [['pong', 0], ['pong', 1], ['pong', 2]])
  end

  def metadata
    text = 'some text'
    data = "\x00\x7f\x80\xff".b
    sent = { 'echo-text' => text, 'echo-bin' => data }
    call = open(InteropService).answer(AnswerRequest.new, **patient(metadata: sent, return_op: true))
    call.execute
    expect('initial', call.metadata.values_at('echo-text', 'echo-bin'), [text, data])
    expect('trailing', call.trailing_metadata.values_at('trailing-text', 'trailing-bin'), [text, data])
  end

  def status
    detail = Google::Protobuf::Any.new
    detail.pack(PingRequest.new(payload: "\x00\xff".b, sequence: 7))
    stub = open(InteropService)
    (1..16).each do |code|
      request = AnswerRequest.new(code: code, message: "100 % naïve: 鍵がない\n", details: [detail])
      error = failure { stub.answer(request, **patient) }
      expect('code', error.code, code)
      expect('message', error.details.dup.force_encoding('UTF-8'), request.message)
      found = error.metadata['grpc-status-details-bin']
      expect('details', AnswerRequest.decode(found), request)
    end
  end

  def deadline
    id = unique
    stub = open(InteropService)
    # Connecting is not to take from the deadline.
    stub.answer(AnswerRequest.new, **patient)
    error = failure { stub.hold(HoldRequest.new(id: id), deadline: Time.now + 0.5).to_a }
    expect('code', error.code, GRPC::Core::StatusCodes::DEADLINE_EXCEEDED)
    stub.ended(EndedRequest.new(id: id), **patient)
  end

  def cancel
    id = unique
    stub = open(InteropService)
    call = stub.hold(HoldRequest.new(id: id), **patient(return_op: true))
    call.execute.each { break }
    call.cancel
    stub.ended(EndedRequest.new(id: id), **patient)
  end

  def sizes
    stub = open(PingService)
    payloads = [1, 1 << 10, 1 << 16, 1 << 20].map { |length| "\0".b * length }
    [*payloads, payload_of(LIMIT - 1)].each do |payload|
      found = stub.ping(PingRequest.new(message: 'ping', payload: payload), **patient)
      expect("payload of #{payload.length}", found.payload == payload, true)
    end
    too_large = PingRequest.new(message: 'ping', payload: payload_of(LIMIT + 1))
    code = failure { stub.ping(too_large, **patient) }.code
    refused = [GRPC::Core::StatusCodes::RESOURCE_EXHAUSTED, GRPC::Core::StatusCodes::OUT_OF_RANGE]
    expect('refused', refused.include?(code) || code, true)
    stub.ping(PingRequest.new, **patient)
  end

  def gzip
    compressed = GRPC::Core::CompressionOptions.new(default_algorithm: :gzip).to_channel_arg_hash
    request = PingRequest.new(message: 'ping', payload: "\0".b * (1 << 16))
    call = open(PingService, **compressed).ping(request, **patient(return_op: true))
    expect('payload', call.execute.payload == request.payload, true)
    encodings = call.metadata.values_at('request-encoding', 'response-encoding')
    expect('encodings', encodings, %w[gzip gzip])
  end

  def parallel
    stub = open(PingService)
    calls = Array.new(100) do |n|
      Thread.new { stub.ping(PingRequest.new(payload: "\0".b * 1000, sequence: n), **patient) }
    end
    expect('sequences', calls.map { |call| call.value.sequence }, (0...100).to_a)
  end

  def crash
    failure { open(InteropService).crash(CrashRequest.new, **patient) }
  end

  def lost
    held = open(InteropService).hold(HoldRequest.new(id: unique), **patient)
    error = failure { held.each { crash } }
    expect('code', error.code, GRPC::Core::StatusCodes::UNAVAILABLE)
  end

  def restart
    stub = open(PingService)
    stub.ping(PingRequest.new, **patient)
    crash
    # The library does not wait for a server.
    600.times do |attempt|
      return stub.ping(PingRequest.new, **patient)
    rescue GRPC::Unavailable
      raise if attempt == 599

      sleep(0.05)
    end
  end

  def health
    stub = open(Grpc::Health::V1::Health)
    request = Grpc::Health::V1::HealthCheckRequest
    ['', PING].each do |service|
      expect('status', stub.check(request.new(service: service), **patient).status, :SERVING)
    end
    error = failure { stub.check(request.new(service: 'no.such.Service'), **patient) }
    expect('code', error.code, GRPC::Core::StatusCodes::NOT_FOUND)
  end

  def reflection
    request = Grpc::Reflection::V1::ServerReflectionRequest
    questions = [request.new(list_services: ''), request.new(file_containing_symbol: PING)]
    stub = open(Grpc::Reflection::V1::ServerReflection)
    services, files = stub.server_reflection_info(questions, **patient).to_a
    listed = services.list_services_response.service.map(&:name)
    expect("#{PING} in #{listed}", listed.include?(PING), true)
    found = files.file_descriptor_response.file_descriptor_proto
    expect('a file of the service', found.any? { |file| file.include?('PingService') }, true)
  end
end

# Runs each case on a channel of its own, says what was different, and whether nothing was.
def run(address, chosen)
  $stdout.sync = true
  outcomes = chosen.map do |name|
    Cases.new(address).public_send(name)
    puts "#{name}\tok"
    true
  rescue Different, GRPC::BadStatus => e
    puts "#{name}\t#{e.message.gsub(/\s+/, ' ')[0, 500]}"
    false
  end
  outcomes.all?
end
