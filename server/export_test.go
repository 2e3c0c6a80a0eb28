package server

import (
	"log/slog"

	"google.golang.org/grpc/codes"

	"github.com/tokenbroker/tokenbroker"
)

// The tables are unexported on purpose: nobody else may decide by them. Their tests have to walk them, whatever rows they hold.

// Row is a row of the error table.
type Row struct {
	Err      error
	Code     codes.Code
	Reason   string
	Recovery tokenbroker.Recovery
}

// Rows returns the error table.
func Rows() []Row {
	var rows []Row
	for _, r := range table {
		rows = append(rows, Row{Err: r.err, Code: r.code, Reason: r.reason, Recovery: r.recovery})
	}
	return rows
}

// ToStatus turns an error into what the client sees.
func ToStatus(log *slog.Logger, err error) error { return toStatus(log, err) }

// Guarded reports whether a method is in the guard's table, and with what action.
func Guarded(method string) (action string, open, ok bool) {
	n, ok := needs[method]
	return string(n.action), n.open, ok
}

// GuardedMethods returns how many methods the guard's table has.
func GuardedMethods() int { return len(needs) }

// Methods returns all methods that a server has registered.
func (s *Server) Methods() []string {
	var list []string
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			list = append(list, "/"+service+"/"+m.Name)
		}
	}
	return list
}
