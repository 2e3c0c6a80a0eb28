package server

import (
	"sync"
	"time"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
	"github.com/tokenbroker/tokenbroker/broker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// encoded is what rides in a snapshot: the messages that all its readers share. They are made once and never changed.
type encoded struct {
	get    *tokenbrokerv1.GetTokenResponse // nil if there is no token
	update *tokenbrokerv1.SubscribeResponse
	key    string // credential and variant

	getWire, updateWire marshalled
}

// marshalled is a message that is marshalled once.
type marshalled func() ([]byte, error)

func marshalOnce(m proto.Message) marshalled {
	return sync.OnceValues(func() ([]byte, error) { return proto.Marshal(m) })
}

// Encode makes the shared messages of a snapshot. It is for broker.Config.Encode.
func Encode(s *broker.Snapshot) any {
	e := &encoded{key: s.Credential + "\x00" + s.Variant.Key()}
	state, recovery := stateToProto(s.State), recoveryToProto(s.Recovery)
	token := tokenToProto(s.Token)
	if token != nil {
		e.get = &tokenbrokerv1.GetTokenResponse{Token: token, State: state, RecoveryAction: recovery, RefreshTime: timeToProto(s.RefreshAt)}
	}
	e.update = &tokenbrokerv1.SubscribeResponse{Event: &tokenbrokerv1.SubscribeResponse_Update{Update: &tokenbrokerv1.Update{
		Selector:   &tokenbrokerv1.Selector{Credential: s.Credential, Scopes: s.Variant.Scopes, Subject: s.Variant.Subject, Audience: s.Variant.Audience},
		Generation: uint64(s.Order.Generation), Revision: s.Order.Revision,
		State: state, RecoveryAction: recovery, Token: token, RefreshTime: timeToProto(s.RefreshAt),
		DefaultScopes: s.Default.Scopes, DefaultSubject: s.Default.Subject, DefaultAudience: s.Default.Audience,
	}}}
	e.getWire, e.updateWire = marshalOnce(e.get), marshalOnce(e.update)
	return e
}

// codec is grpc's codec for protobuf, which besides takes a marshalled for a message: its bytes are made for the first call or stream and
// shared by the others. A grpc.PreparedMsg would not do: it is also compressed as the first stream asked for.
type codec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(marshalled)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	data, err := m()
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

func encodedOf(s *broker.Snapshot) *encoded {
	if e, ok := s.Encoded.(*encoded); ok {
		return e
	}
	return Encode(s).(*encoded)
}

func tokenToProto(t *tokenbroker.Token) *tokenbrokerv1.Token {
	if t == nil {
		return nil
	}
	return &tokenbrokerv1.Token{AccessToken: t.AccessToken.Reveal(), TokenType: t.Type, Scopes: t.Scopes, ExpireTime: timeToProto(t.Expiry),
		ExpireTimeEstimated: t.ExpiryEstimated, Generation: uint64(t.Generation), Metadata: t.Metadata}
}

// timeToProto leaves a zero time out.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stateToProto(s tokenbroker.State) tokenbrokerv1.CredentialState {
	return tokenbrokerv1.CredentialState(tokenbrokerv1.CredentialState_value["CREDENTIAL_STATE_"+string(s)])
}

func recoveryToProto(r tokenbroker.Recovery) tokenbrokerv1.RecoveryAction {
	return tokenbrokerv1.RecoveryAction(tokenbrokerv1.RecoveryAction_value["RECOVERY_ACTION_"+string(r)])
}
