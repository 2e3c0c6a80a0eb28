package sandbox

// RememberedAccessTokens is how many access tokens an issuer holds, which nothing outside can tell.
func (s *Server) RememberedAccessTokens(issuer string) int {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.access)
}
