package server

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tokenbroker/tokenbroker"
)

// heldRequest is a request that brings what a grant lives on.
type heldRequest interface {
	GetRefreshToken() string
	GetRefreshTokenExpireTime() *timestamppb.Timestamp
	otherHeldRequest
}

// otherHeldRequest is the part of it for grants that live on something else than a refresh token.
type otherHeldRequest interface {
	GetStaticToken() string
	GetPassword() string
	GetSubjectToken() string
	GetSecretExpireTime() *timestamppb.Timestamp
}

// held is what a grant lives on.
type held struct {
	secret tokenbroker.Secret
	holds  tokenbroker.Holding
	end    time.Time // if it is known
}

// heldOf reads the one secret that a request brings; the zero value if it brings none.
func heldOf(r heldRequest) (h held, err error) {
	endField, end := "secretExpireTime", r.GetSecretExpireTime()
	n := 0
	for _, one := range []struct {
		holds tokenbroker.Holding
		text  string
	}{
		{tokenbroker.HoldsRefreshToken, r.GetRefreshToken()},
		{tokenbroker.HoldsToken, r.GetStaticToken()},
		{tokenbroker.HoldsPassword, r.GetPassword()},
		{tokenbroker.HoldsSubjectToken, r.GetSubjectToken()},
	} {
		if one.text != "" {
			h.secret, h.holds = tokenbroker.NewSecret(one.text), one.holds
			n++
		}
	}
	if h.holds == tokenbroker.HoldsRefreshToken && r.GetSecretExpireTime() == nil {
		endField, end = "refreshTokenExpireTime", r.GetRefreshTokenExpireTime()
	}
	switch {
	case n > 1:
		return h, tokenbroker.Invalid("refreshToken", errors.New("exactly one of refreshToken, staticToken, password and subjectToken may be given"))
	case n == 1 && h.holds == tokenbroker.HoldsRefreshToken && r.GetSecretExpireTime() != nil:
		return h, tokenbroker.Invalid("secretExpireTime", errors.New("is for the other secrets; give refreshTokenExpireTime"))
	case n == 1 && h.holds != tokenbroker.HoldsRefreshToken && r.GetRefreshTokenExpireTime() != nil:
		return h, tokenbroker.Invalid("refreshTokenExpireTime", errors.New("is for a refresh token; give secretExpireTime"))
	}
	h.end, err = optionalTime(endField, end)
	return h, err
}
