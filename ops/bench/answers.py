"""What the voice is measured on: five texts, and answers as the default persona gives them on the telephone."""

CASES: dict[str, str] = {
    "short": "Yes, of course. How can I help?",
    "medium-1": (
        "I'm sorry, but I don't have enough information to answer that. Could you tell me which city you "
        "mean, and what day you would like to leave?"
    ),
    "medium-2": (
        "The next train to Boston leaves at 6:30 p.m. from platform 4, and a ticket costs $12.50. Dr. Smith "
        "is on board, too."
    ),
    "long-1": (
        "Making good coffee starts with fresh beans that are ground just before you brew. Use about sixty "
        "grams for each liter of water, and let the water cool for half a minute after it has boiled. Pour a "
        "little of it first, wait until the bubbles are gone, then pour the rest slowly, in circles. It "
        "should take about three minutes. If it tastes bitter, grind the beans a bit coarser; if it tastes "
        "sour, grind them finer. Enjoy it while it is warm!"
    ),
    "long-2": (
        "Once upon a time there was a small dragon who was afraid of the dark. Every evening, when the sun "
        "went down behind the hills, he lit a candle and counted the stars until he fell asleep. One night "
        "the wind came through the window and blew the candle out, and for the first time he saw how bright "
        "the moon really was. From then on he needed no candle, and the other dragons, who had laughed at "
        "him, came to sit beside him and look at the sky."
    ),
}

ANSWERS: tuple[str, ...] = (
    "The next train to Boston leaves at half past six this evening.",
    "I'm sorry, but I don't have enough information to answer that.",
    "I can cook steamed broccoli and spinach with you, they are both delicious and quick.",
    "Mount Everest is about eight thousand eight hundred meters tall.",
    "Try looking in the places where you last used them, such as your coat or the car.",
    "A black hole is a region of space where gravity is so strong that nothing can escape.",
    "The weather tomorrow will be mostly sunny with a light wind from the west.",
    "You can take the second street on the left and walk past the old church.",
    "The sky is blue because the air scatters short waves of light more than long ones.",
    "Please hold the power button for ten seconds and then start your laptop again.",
    "Rome is the capital of Italy and it has many old buildings that you can visit.",
    "It is currently four in the morning in Tokyo, so most people are asleep.",
    "Romeo and Juliet was written by William Shakespeare in the sixteenth century.",
    "You should boil an egg for about eight minutes if you want it hard.",
    "That sounds hard, and I hope you can get some rest this evening.",
    "You might enjoy reading the first book of the series about the small dragon.",
    "Cats are usually more independent than dogs and need less of your time.",
    "Making good coffee starts with fresh beans that are ground just before you brew.",
    "You can buy a new phone online or in any of the shops near the station.",
    "The biggest animal in the world is the blue whale, which can be thirty meters long.",
    "Yes, it looks like it will rain later this afternoon in most of the city.",
    "About nine million people live in London and its suburbs today.",
    "I have booked a table for two at seven in the evening under your name.",
    "Plants use photosynthesis to turn sunlight into the sugar that they live on.",
    "Could you tell me whether the light on your router is green or red?",
    "My name is Callbox and I am here to help you with anything you need.",
    "The best way to learn the guitar is to practise a little every single day.",
    "A good gift for your mother might be a nice scarf or some flowers.",
    "The first moon landing happened in July of nineteen sixty nine.",
    "A flight to Paris usually costs between two hundred and four hundred dollars.",
)
