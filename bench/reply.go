package main

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tokenbroker/tokenbroker/bench/subject"
)

// Numbers of the fields that are looked at, in proto/tokenbroker/v1/token_service.proto.
const (
	getToken         = 1 // GetTokenResponse.token
	tokenAccess      = 1 // Token.access_token
	eventUpdate      = 1 // SubscribeResponse.update
	eventSnapshotEnd = 3
	eventHeartbeat   = 4
	updateGeneration = 2
	updateToken      = 6
)

// The replies are looked at field by field, as unmarshalling ten thousand of them would be a good part of what is measured.

// field finds a field of a message: its bytes, or its number if it is a varint.
func field(msg []byte, number protowire.Number) (value []byte, varint uint64, err error) {
	for len(msg) > 0 {
		num, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		msg = msg[n:]
		size := protowire.ConsumeFieldValue(num, kind, msg)
		if size < 0 {
			return nil, 0, protowire.ParseError(size)
		}
		switch {
		case num == number && kind == protowire.BytesType:
			value, _ = protowire.ConsumeBytes(msg)
			return value, 0, nil
		case num == number && kind == protowire.VarintType:
			varint, _ = protowire.ConsumeVarint(msg)
			return nil, varint, nil
		}
		msg = msg[size:]
	}
	return nil, 0, fmt.Errorf("no field %d", number)
}

// checkToken says what is wrong with a message whose field holds a token.
func checkToken(msg []byte, number protowire.Number) error {
	token, _, err := field(msg, number)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	access, _, err := field(token, tokenAccess)
	if err != nil {
		return fmt.Errorf("access token: %w", err)
	}
	if len(access) != subject.TokenBytes {
		return fmt.Errorf("an access token of %d bytes, %d were expected", len(access), subject.TokenBytes)
	}
	return nil
}

// checkGet says what is wrong with a GetTokenResponse.
func checkGet(msg []byte) error { return checkToken(msg, getToken) }

// generationOf returns the generation of an update that holds a token, 0 for the end of a snapshot and for heartbeats, and an error for
// everything else.
func generationOf(msg []byte) (uint64, error) {
	for _, quiet := range []protowire.Number{eventSnapshotEnd, eventHeartbeat} {
		if _, _, err := field(msg, quiet); err == nil {
			return 0, nil
		}
	}
	update, _, err := field(msg, eventUpdate)
	if err != nil {
		return 0, errors.New("neither an update nor the end of a snapshot nor a heartbeat")
	}
	if err := checkToken(update, updateToken); err != nil {
		return 0, err
	}
	_, generation, err := field(update, updateGeneration)
	return generation, err
}
