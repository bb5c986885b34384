// Publishes the two greetings of the reference's demo, on Go's gRPC stack.
//
// usage: publisher ADDRESS
package main

import (
	"context"
	"log"
	"os"

	"google.golang.org/grpc"

	"interop/proto"
)

func main() {
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := proto.NewPubSubServiceClient(connection)

	greetings := []*proto.PublishRequest{
		{Topic: "greeting", Payload: []byte("hello, world!")},
		{Topic: "gocn", Payload: []byte("hello, gophers!")},
	}
	for _, greeting := range greetings {
		if _, err := client.Publish(context.Background(), greeting); err != nil {
			log.Fatal(err)
		}
	}
}
