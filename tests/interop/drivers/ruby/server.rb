# The server that our channel meets: Ping, health and the tests' own service.
require 'grpc'
require 'grpc/health/checker'
require 'interop/v1/interop_services_pb'
require 'ping/v1/ping_services_pb'

class PingHandler < Ping::V1::PingService::Service
  include Ping::V1

  def ping(request, _call)
    PingResponse.new(message: 'pong', payload: request.payload, sequence: request.sequence)
  end

  def converse(requests)
    Enumerator.new do |replies|
      requests.each do |request|
        break if request.message == 'end'

        replies << ConverseResponse.new(message: 'pong', payload: request.payload, sequence: request.sequence)
      end
    end
  end

  def watch(request, _call)
    (0...request.count).lazy.map do |sequence|
      WatchResponse.new(message: 'pong', payload: request.payload, sequence: sequence)
    end
  end

  def collect(call)
    count = bytes = 0
    call.each_remote_read do |request|
      count += 1
      bytes += request.payload.length
    end
    CollectResponse.new(count: count, bytes: bytes)
  end
end

class InteropHandler < Interop::V1::InteropService::Service
  include Interop::V1

  # How often a handler looks whether its call is over: the library does not tell it.
  LOOK = 0.05

  def initialize
    super
    @mutex = Mutex.new
    @changed = ConditionVariable.new
    @ended = []
  end

  def answer(request, call)
    %w[text bin].each do |kind|
      value = call.metadata["echo-#{kind}"]
      next unless value

      call.output_metadata["trailing-#{kind}"] = value
      call.merge_metadata_to_send("echo-#{kind}" => value)
    end
    return AnswerResponse.new if request.code.zero?

    trailing = { 'grpc-status-details-bin' => request.to_proto }
    raise GRPC::BadStatus.new_status_exception(request.code, request.message, trailing)
  end

  def hold(request, call)
    Enumerator.new do |replies|
      replies << HoldResponse.new
      sleep(LOOK) until over?(call)
      # The server's clock may be first to see the deadline: a call that ends so has not succeeded.
      raise GRPC::DeadlineExceeded, 'the deadline is over'
    ensure
      @mutex.synchronize do
        @ended << request.id
        @changed.broadcast
      end
    end
  end

  def ended(request, call)
    @mutex.synchronize do
      @changed.wait(@mutex, LOOK) until @ended.include?(request.id) || over?(call)
      raise GRPC::DeadlineExceeded, 'it has not ended' unless @ended.include?(request.id)
    end
    EndedResponse.new
  end

  def crash(_request, _call)
    exit!(0)
  end

  private

  def over?(call)
    call.cancelled? || Time.now > call.deadline
  end
end

def serve(address)
  $stdout.sync = true
  # A call that finds no free thread is refused, not queued.
  server = GRPC::RpcServer.new(pool_size: 128)
  raise "#{address} cannot be bound" if server.add_http2_port(address, :this_port_is_insecure).zero?

  health = Grpc::Health::Checker.new
  serving = Grpc::Health::V1::HealthCheckResponse::ServingStatus::SERVING
  ['', 'ping.v1.PingService'].each { |service| health.add_status(service, serving) }
  [PingHandler.new, InteropHandler.new, health].each { |handler| server.handle(handler) }
  puts "listening on #{address}"
  server.run
end
