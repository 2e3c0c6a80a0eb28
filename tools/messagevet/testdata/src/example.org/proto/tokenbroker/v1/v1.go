// Package tokenbrokerv1 stands for the generated code.
package tokenbrokerv1

type Token struct{ AccessToken string }

func (*Token) String() string { return "" }

func (t *Token) GetAccessToken() string { return t.AccessToken }

type State int32

func (State) String() string { return "" }
