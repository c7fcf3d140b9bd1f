# serve ADDRESS, or client ADDRESS CASE...: see ../../README.md.
require 'grpc'

command, address, *chosen = ARGV
case command
when 'serve'
  require_relative 'server'
  serve(address)
when 'client'
  require_relative 'cases'
  exit(run(address, chosen))
else
  abort("#{command}: serve or client")
end
