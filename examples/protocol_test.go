package examples_test

import (
	"os"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// What the Python example reads the messages from is made by buf, and has to follow the protocol.
func TestThePythonExampleSpeaksThePresentProtocol(t *testing.T) {
	text, err := os.ReadFile("python/tokenbroker.binpb")
	if err != nil {
		t.Fatal(err)
	}
	got, want := &descriptorpb.FileDescriptorSet{}, map[string]*descriptorpb.FileDescriptorProto{}
	if err := proto.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	describe(want, tokenbrokerv1.File_tokenbroker_v1_token_service_proto)
	if len(got.GetFile()) != len(want) {
		t.Errorf("got %d files, want %d: make generate", len(got.GetFile()), len(want))
	}
	for _, file := range got.GetFile() {
		file.ProtoReflect().SetUnknown(nil) // buf's own marks
		if !proto.Equal(file, want[file.GetName()]) {
			t.Errorf("%s is not what the .proto file says: make generate", file.GetName())
		}
	}
}

// describe adds a file, and what it imports.
func describe(files map[string]*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor) {
	files[file.Path()] = protodesc.ToFileDescriptorProto(file)
	for i := range file.Imports().Len() {
		describe(files, file.Imports().Get(i).FileDescriptor)
	}
}
