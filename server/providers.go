package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/tokenbroker/tokenbroker"
	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// Providers is what the ProviderService shows.
type Providers interface {
	// List gives all providers, by name. The caller changes nothing of them.
	List() []*tokenbrokerv1.Provider
	// Provider gives one; nil if there is none of that name.
	Provider(name string) *tokenbrokerv1.Provider
}

// providerService implements the RPCs on providers.
type providerService struct {
	tokenbrokerv1.UnimplementedProviderServiceServer
	providers Providers
}

func newProviderService(cfg Config) tokenbrokerv1.ProviderServiceServer {
	if cfg.Providers == nil {
		return tokenbrokerv1.UnimplementedProviderServiceServer{}
	}
	return &providerService{providers: cfg.Providers}
}

// ListProviders implements tokenbrokerv1.ProviderServiceServer.
func (p *providerService) ListProviders(context.Context, *tokenbrokerv1.ListProvidersRequest) (*tokenbrokerv1.ListProvidersResponse, error) {
	resp := &tokenbrokerv1.ListProvidersResponse{}
	for _, one := range p.providers.List() {
		brief := proto.CloneOf(one)
		brief.Notes = ""
		resp.Providers = append(resp.Providers, brief)
	}
	return resp, nil
}

// GetProvider implements tokenbrokerv1.ProviderServiceServer.
func (p *providerService) GetProvider(_ context.Context, r *tokenbrokerv1.GetProviderRequest) (*tokenbrokerv1.GetProviderResponse, error) {
	if err := tokenbroker.ValidateName(r.GetProvider()); err != nil {
		return nil, tokenbroker.Invalid("provider", err)
	}
	one := p.providers.Provider(r.GetProvider())
	if one == nil {
		return nil, &tokenbroker.Problem{Err: tokenbroker.ErrUnknownProvider, Field: "provider", Detail: "list the providers for their names"}
	}
	return &tokenbrokerv1.GetProviderResponse{Provider: one}, nil
}
