package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/tokenbroker/tokenbroker/provider"
	"github.com/tokenbroker/tokenbroker/server"
)

// limits is the section of that name of the config file.
type limits struct {
	CallsPerSecond     float64           `yaml:"calls_per_second"`
	StreamsPerIdentity int               `yaml:"streams_per_identity"`
	StreamsPerConn     uint32            `yaml:"streams_per_connection"`
	ConnsPerIdentity   int               `yaml:"connections_per_identity"`
	Conns              int               `yaml:"connections"`
	Handshakes         int               `yaml:"handshakes"`
	HandshakeTimeout   provider.Duration `yaml:"handshake_timeout"`
	ResetsPerSecond    float64           `yaml:"resets_per_second"`
	HeaderBytes        uint32            `yaml:"header_bytes"`
	RequestBytes       int               `yaml:"request_bytes"`
	Selectors          int               `yaml:"selectors_per_stream"`
	Tails              int               `yaml:"tails_per_identity"`
	Memory             int64             `yaml:"memory"`
	CallDeadline       provider.Duration `yaml:"call_deadline"`
	Heartbeat          provider.Duration `yaml:"heartbeat"`
	SlowReader         provider.Duration `yaml:"slow_reader"`
	ConnectionAge      provider.Duration `yaml:"connection_age"`
	ConnectionGrace    provider.Duration `yaml:"connection_grace"`
	ConnectionIdle     provider.Duration `yaml:"connection_idle"`
	Keepalive          provider.Duration `yaml:"keepalive"`
	KeepaliveTimeout   provider.Duration `yaml:"keepalive_timeout"`
}

func (l limits) server() server.Limits {
	return server.Limits{CallsPerSecond: l.CallsPerSecond, StreamsPerIdentity: l.StreamsPerIdentity, StreamsPerConn: l.StreamsPerConn,
		ConnsPerIdentity: l.ConnsPerIdentity, Conns: l.Conns, Handshakes: l.Handshakes, ResetsPerSecond: l.ResetsPerSecond,
		HeaderBytes: l.HeaderBytes, RequestBytes: l.RequestBytes, Selectors: l.Selectors, Tails: l.Tails, Memory: l.Memory,
		HandshakeTimeout: time.Duration(l.HandshakeTimeout), CallDeadline: time.Duration(l.CallDeadline), Heartbeat: time.Duration(l.Heartbeat),
		SlowReader: time.Duration(l.SlowReader), ConnectionAge: time.Duration(l.ConnectionAge), ConnectionGrace: time.Duration(l.ConnectionGrace),
		ConnectionIdle: time.Duration(l.ConnectionIdle), Keepalive: time.Duration(l.Keepalive), KeepaliveTimeout: time.Duration(l.KeepaliveTimeout)}
}

// setting is a number of the config file, 0 for its default.
type setting struct {
	key   string
	value float64
	least string // what it is at least, as one writes it; "" = anything
	small bool   // it is less
}

// least is a setting with which, were it smaller, nobody could be served.
func least(key string, value, least int64) setting {
	return setting{key, float64(value), strconv.FormatInt(least, 10), value > 0 && value < least}
}

// lasting is a setting that is a time. A shorter one than a second is a unit that was mistaken.
func lasting(key string, d provider.Duration) setting {
	return setting{key, float64(d), "1s", d > 0 && time.Duration(d) < time.Second}
}

const (
	memoryLeast  = 32 << 20 // three times what a broker has that does nothing
	headerLeast  = 1 << 10
	requestLeast = 1 << 10
)

// values are the settings that could be what no limit can be.
func (l limits) values() []setting {
	return []setting{
		{key: "limits.calls_per_second", value: l.CallsPerSecond}, {key: "limits.streams_per_identity", value: float64(l.StreamsPerIdentity)},
		{key: "limits.connections_per_identity", value: float64(l.ConnsPerIdentity)}, {key: "limits.connections", value: float64(l.Conns)},
		{key: "limits.handshakes", value: float64(l.Handshakes)}, lasting("limits.handshake_timeout", l.HandshakeTimeout),
		{key: "limits.resets_per_second", value: l.ResetsPerSecond}, least("limits.header_bytes", int64(l.HeaderBytes), headerLeast),
		least("limits.request_bytes", int64(l.RequestBytes), requestLeast), {key: "limits.selectors_per_stream", value: float64(l.Selectors)},
		{key: "limits.tails_per_identity", value: float64(l.Tails)}, least("limits.memory", l.Memory, memoryLeast),
		lasting("limits.call_deadline", l.CallDeadline), lasting("limits.heartbeat", l.Heartbeat), lasting("limits.slow_reader", l.SlowReader),
		lasting("limits.connection_age", l.ConnectionAge), lasting("limits.connection_grace", l.ConnectionGrace),
		lasting("limits.connection_idle", l.ConnectionIdle), lasting("limits.keepalive", l.Keepalive),
		lasting("limits.keepalive_timeout", l.KeepaliveTimeout),
	}
}

const (
	filesApart = 512      // files besides connections of workers: the store, the audit log, connections to providers
	connBytes  = 64 << 10 // an idle connection, about
	connsMost  = 50_000
	connsLeast = 64
)

// fit fills what the machine decides: how much memory there is, which it tells the runtime too, and how many connections fit into that
// and into the open files that the process may have.
func fit(l *server.Limits) {
	if l.Memory == 0 {
		l.Memory = memoryOf("/sys/fs/cgroup", os.ReadFile)
	}
	if runtimes := debug.SetMemoryLimit(-1); runtimes != math.MaxInt64 {
		if l.Memory == 0 || runtimes < l.Memory {
			l.Memory = runtimes
		}
	} else if l.Memory > 0 {
		debug.SetMemoryLimit(l.Memory)
	}
	if l.Conns == 0 {
		var files syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
			files.Cur = math.MaxInt64
		}
		l.Conns = connsFor(files.Cur, l.Memory)
	}
}

// connsFor is how many connections there may be, by the files that may be open and the memory that there is; 0 = no end to that.
func connsFor(files uint64, memory int64) int {
	most := connsMost
	if files < connsMost+filesApart {
		most = int(files) - filesApart
	}
	if memory > 0 {
		most = int(min(int64(most), memory/2/connBytes))
	}
	return max(connsLeast, most)
}

// memoryOf is nine tenths of what a control group has; 0 if there is none, or no end to it. The rest is for what the runtime does not count.
func memoryOf(root string, read func(string) ([]byte, error)) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		text, err := read(filepath.Join(root, name))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err == nil && n > 0 && n < 1<<50 { // version 1 writes a number beyond any machine for no limit
			return n / 10 * 9
		}
	}
	return 0
}
