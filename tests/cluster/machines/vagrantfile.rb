# Prints what a Vagrantfile says of its machines, as JSON: for where there is no vagrant.
#     ruby vagrantfile.rb VAGRANTFILE
require "json"

class Network
  def initialize(machine) = @machine = machine
  def hostname=(name)
    @machine["hostname"] = name
  end
  def network(kind, ip:) = @machine["networks"] << [kind, ip]
  def provision(name, type:, path:, env:) = @machine["provision"] << { "name" => name, "path" => path, "env" => env }
end

class Machines
  attr_accessor :box
  attr_reader :defined

  def initialize = @defined = []
  def provider(*) = nil
  def synced_folder(from, to, **) = @folder = [from, to]
  def define(name)
    machine = { "name" => name, "folder" => @folder, "networks" => [], "provision" => [] }
    @defined << machine
    yield Struct.new(:vm).new(Network.new(machine))
  end
end

module Vagrant
  def self.configure(_version)
    machines = Machines.new
    yield Struct.new(:vm).new(machines)
    puts JSON.pretty_generate(machines.defined)
  end
end

load ARGV.fetch(0)
