package subject

// What tests look at from outside.
var (
	ResidentOf = residentOf
	Lengthen   = lengthen
)
