// Looks at a corner of each image, whether it is light or dark.
addEventListener("load", async () => {
    const seen = { light: 0, dark: 0 };
    for (const image of document.images) {
        await image.decode();
        const canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const [red, green, blue] = context.getImageData(3, 3, 1, 1).data;
        seen[red + green + blue > 382 ? "light" : "dark"] += 1;
    }
    const found = Object.entries(seen).filter(([, images]) => images > 0);
    document.querySelector("p").textContent =
        found.map(([colours, images]) => `${images} images are ${colours}`).join(", ");
});
